module keyplane.io/e2e/kubernetes/flannel

go 1.26.6

require github.com/flannel-io/flannel v0.28.10 // indirect
