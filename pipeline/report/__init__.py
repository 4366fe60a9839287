"""What a person looks at: pictures with boxes and skeletons."""
