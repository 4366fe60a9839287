"""What a person should look at: images ranked by doubt, without annotations."""
