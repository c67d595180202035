"""The dense Mistral, Llama and Qwen family: one definition, to which trainer and engine are held."""
