//! Decides numbers from progress: phases, schedules, plans.
