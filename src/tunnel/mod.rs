//! One live session: lock, reactor and pipes, shared by agent and edge.
