"""What happened while a picture was drawn: recordings, branches, traces, races."""
