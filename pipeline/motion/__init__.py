"""How people move: joint angles, centre of mass, and events of gait, jumps and throws. Over tables alone.

All of it is seen by one camera: angles are projections onto the image, lengths are pixels.
"""
