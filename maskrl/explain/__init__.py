"""Drawing recordings: pictures, videos and the episode explorer."""
