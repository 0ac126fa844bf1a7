"""Control laws, one method a file, all under the contract of `steerlib.laws.base`."""
