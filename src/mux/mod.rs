//! The frame muxer. Sans-IO.
