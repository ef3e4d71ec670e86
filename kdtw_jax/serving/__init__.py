"""A server of a student that may ask: requests in, answers with each token's writer out, many at a time."""
