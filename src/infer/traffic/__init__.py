"""Where a model's traffic goes, and what is concluded from where it went: pure policies, and the controller of them."""
