"""Where mechanisms come from and where news go: the platform, or nothing. Loads what is approved
into a sandbox worker; decides no trial."""
