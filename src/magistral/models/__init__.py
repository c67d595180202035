"""The dense Mistral, Llama and Qwen family: one definition for trainer and engine."""
