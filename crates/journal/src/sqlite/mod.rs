//! The journal in one SQLite file: WAL, `synchronous=FULL`, one writer.
