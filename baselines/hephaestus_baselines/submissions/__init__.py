"""Submissions: predictions of models made elsewhere, scored like our own runs and ranked beside them."""
