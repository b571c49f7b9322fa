"""Operations on cubes that exist: many frames, repair, status and the log of runs."""
