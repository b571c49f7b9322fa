"""The labelled data set: samples, splits, events, tilings and channel statistics."""
