"""Pictures in and out: reading images and masks, drawing matches, the page that shows one."""
