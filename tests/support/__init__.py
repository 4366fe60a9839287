"""What several tests share: paths, images, runs, servers, clusters, descriptions of networks."""
