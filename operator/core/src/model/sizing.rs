//! Settings that depend on `spec.scale`, the expected number of Nodes. Without `spec.scale` the defaults of kubeadm
//! apply.

use keyplane_crds::Argument;

use super::Cluster;

/// Settings for a number of Nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    nodes: u32,
}

impl Sizing {
    /// The limits of read and write requests in flight of kube-apiserver. `None` where its defaults (400 and 200)
    /// suffice.
    ///
    /// Source: kube-up, `cluster/gce/gci/configure-kubeapiserver.sh` in Kubernetes 1.37.
    #[must_use]
    pub fn requests_in_flight(self) -> Option<(u32, u32)> {
        match self.nodes {
            0..=500 => None,
            501..=3000 => Some((1500, 500)),
            _ => Some((3000, 1000)),
        }
    }

    /// The client QPS and burst of the controller-manager (by default 20 and 30) and the scheduler (50 and 100).
    ///
    /// Source: Kubernetes' own scalability jobs run both with 100 and 100, from 100 to 5000 Nodes
    /// (`CONTROLLER_MANAGER_TEST_ARGS` and `SCHEDULER_TEST_ARGS` in kubernetes/test-infra).
    #[must_use]
    pub fn client_rate(self) -> Option<(u32, u32)> {
        (self.nodes >= 100).then_some((100, 100))
    }

    /// The number of CoreDNS Pods: one for sixteen Nodes, at least two.
    ///
    /// Source: the parameters of `cluster/addons/dns-horizontal-autoscaler` in Kubernetes 1.37 (`nodesPerReplica: 16`,
    /// `preventSinglePointFailure`). Its other parameter, one Pod for 256 cores, needs running
    /// nodes.
    #[must_use]
    pub fn dns_replicas(self) -> u32 {
        self.nodes.div_ceil(16).max(2)
    }

    /// The memory request and limit of a CoreDNS Pod in MiB: those of kubeadm (70 and 170) until CoreDNS needs more,
    /// and then a limit in the same proportion.
    ///
    /// Source: "Scaling CoreDNS in Kubernetes Clusters" in coredns/deployment: (Pods + Services) / 1000 + 54 MB. Pods
    /// are the 110 a Node and 150,000 in all that Kubernetes' page on large clusters allows; Services the 10,000 of SIG
    /// Scalability's thresholds, and not more than Pods.
    #[must_use]
    pub fn dns_memory(self) -> (u32, u32) {
        let pods = self.nodes.saturating_mul(110).min(150_000);
        let needed = (pods + pods.min(10_000)).div_ceil(1000) + 54;
        let request = needed.max(70);
        (request, request * 170 / 70)
    }

    /// The CPU and memory requests of kube-proxy. kubeadm sets none, so kube-proxy starves on a full node.
    ///
    /// Source: kube-up, `KUBE_PROXY_CPU_REQUEST` and `KUBE_PROXY_MEMORY_REQUEST` in
    /// `cluster/gce/gci/configure-helper.sh`.
    #[must_use]
    pub fn proxy_requests(self) -> (&'static str, &'static str) {
        ("100m", "50Mi")
    }

    fn in_flight_arguments(self) -> Vec<Argument> {
        self.requests_in_flight().map_or(vec![], |(reading, writing)| {
            vec![argument("max-requests-inflight", reading), argument("max-mutating-requests-inflight", writing)]
        })
    }

    fn rate_arguments(self) -> Vec<Argument> {
        self.client_rate()
            .map_or(vec![], |(qps, burst)| vec![argument("kube-api-qps", qps), argument("kube-api-burst", burst)])
    }
}

impl Cluster {
    /// The settings for the expected number of Nodes, if `spec.scale` is set.
    #[must_use]
    pub fn sizing(&self) -> Option<Sizing> {
        let nodes = self.spec.scale.as_ref()?.nodes;
        Some(Sizing { nodes: u32::try_from(nodes).unwrap_or_default() })
    }

    /// The additional flags of kube-apiserver: those of `spec.scale` and those of the user, which take precedence.
    #[must_use]
    pub fn api_server_arguments(&self) -> Vec<Argument> {
        self.beside(Sizing::in_flight_arguments, &self.spec.control_plane.api_server.extra_args)
    }

    /// The additional flags of kube-controller-manager.
    #[must_use]
    pub fn controller_manager_arguments(&self) -> Vec<Argument> {
        self.beside(Sizing::rate_arguments, &self.spec.control_plane.controller_manager.extra_args)
    }

    /// The additional flags of kube-scheduler. A scheduler with a configuration file ignores the flags of `spec.scale`.
    #[must_use]
    pub fn scheduler_arguments(&self) -> Vec<Argument> {
        self.beside(Sizing::rate_arguments, &self.spec.control_plane.scheduler.extra_args)
    }

    fn beside(&self, of: fn(Sizing) -> Vec<Argument>, users: &[Argument]) -> Vec<Argument> {
        let mut arguments = self.sizing().map_or(vec![], of);
        arguments.retain(|argument| users.iter().all(|users| users.name != argument.name));
        arguments.extend_from_slice(users);
        arguments
    }
}

fn argument(name: &str, value: u32) -> Argument {
    Argument { name: name.to_owned(), value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_change_at_the_documented_node_counts() {
        let of = |nodes| Sizing { nodes };
        assert_eq!((of(500).requests_in_flight(), of(501).requests_in_flight()), (None, Some((1500, 500))));
        assert_eq!(
            (of(3000).requests_in_flight(), of(3001).requests_in_flight()),
            (Some((1500, 500)), Some((3000, 1000)))
        );
        assert_eq!((of(99).client_rate(), of(100).client_rate()), (None, Some((100, 100))));
        assert_eq!([1, 32, 33, 5000].map(|nodes| of(nodes).dns_replicas()), [2, 2, 3, 313]);
        assert_eq!(
            [1, 50, 1000, 5000].map(|nodes| of(nodes).dns_memory()),
            [(70, 170), (70, 170), (174, 422), (214, 519)]
        );
    }
}
