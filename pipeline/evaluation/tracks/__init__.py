"""Tracks compared with annotated ones: CLEAR MOT, IDF1, HOTA, and PoseTrack's MOTA of joints."""
