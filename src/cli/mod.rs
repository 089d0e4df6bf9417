//! The command line of both programs.
