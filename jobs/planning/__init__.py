"""What a grid will cost before it is begun: how much there is to compute, how fast that goes, and
what is placed where.
"""
