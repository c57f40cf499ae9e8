//! Studies: arms times seeds as processes, and comparisons with bootstrap intervals.
