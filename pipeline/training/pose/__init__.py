"""Learning poses: people cut out of photographs, their views, targets and losses."""
