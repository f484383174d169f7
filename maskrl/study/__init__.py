"""Do the masks explain? Rival saliency methods, measures and controls."""
