"""Methods of aggregation, a file each, named after its paper; `federation.aggregation` is the seam.

Imports `fedpace.core`, `fedpace.federation.aggregation`, `fedpace.federation.hooks` and NumPy. Each
file says what in it is an adaptation of ours. Common to all: with partial participation the
average is over the participants of the round; where a method has no word on a task head (most
fine-tune without one), the head is averaged with data weights; a round in which nobody takes part
moves nothing.
"""
