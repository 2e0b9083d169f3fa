//! lockc makes containers on edge nodes contain.
