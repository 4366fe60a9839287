"""COCO files: annotations, results, image ids, and the person category. The only place that parses them."""
