"""Measurements that anyone can repeat: each beside a named baseline, in the same run on the same cores."""
