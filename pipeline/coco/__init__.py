"""COCO files: annotations, results, image ids, and which category is a person. The only place that parses them."""
