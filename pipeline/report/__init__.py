"""Output for people: the page of a run, charts, pictures with boxes and skeletons, summary lines."""
