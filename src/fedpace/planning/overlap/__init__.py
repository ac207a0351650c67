"""Rounds that overlap: the queue at the band, what a schedule costs, and the best one."""
