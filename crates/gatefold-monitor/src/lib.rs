//! What a run says about itself: metric names and windows.
