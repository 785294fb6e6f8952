"""Turn predictions and results of a call into pictures and back, and limit what the caller's callbacks see."""
