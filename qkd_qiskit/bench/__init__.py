"""`qkd bench`: what noise and shots cost the students of a finished run."""
