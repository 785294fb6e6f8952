"""Turn predictions and results of a call into pictures, in the requested form, and cover them for callbacks."""
