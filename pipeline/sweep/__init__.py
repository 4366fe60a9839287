"""Sweeps over settings: trials on the stored candidates of runs, one run per choice of networks, a leaderboard."""
