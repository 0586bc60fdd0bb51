"""Services that other projects' test clients call, as handlers of our own contract, and a program that serves them."""
