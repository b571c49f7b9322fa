"""The labelled data set: samples, series, splits, deformation events, tilings and channel statistics."""
