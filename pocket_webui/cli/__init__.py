"""The command line: `main` reads `arguments`, `request` turns them into the API's body, `generate` runs it."""
