"""What converters share: records (image, label and camera of one sample), their files and their cameras."""
