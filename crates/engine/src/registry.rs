//! Machines behind one dynamic face, so that the engine knows none of them.
