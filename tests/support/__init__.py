"""What tests share: made runs, hostile files, a killer."""
