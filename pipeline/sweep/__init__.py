"""Which settings are best: trials over stored candidates, runs of their own where networks differ, a leaderboard."""
