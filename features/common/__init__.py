"""What every room shares: types, errors, whole files, the clock, time stamps, pseudonyms."""
