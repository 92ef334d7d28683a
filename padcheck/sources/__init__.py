"""What padcheck can read: request files, hparams, templates and tokenizer folders."""
