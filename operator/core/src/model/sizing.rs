//! What the expected number of Nodes asks for. Without `spec.scale` everything is as kubeadm has it.

use keyplane_crds::Argument;

use super::Cluster;

/// Settings for a number of Nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    nodes: u32,
}

impl Sizing {
    /// kube-apiserver's limits of requests in flight, reading and writing; nothing where its defaults (400 and 200) do.
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

    /// Requests a second, and burst, of the controller-manager (20 and 30 by default) and the scheduler (50 and 100).
    ///
    /// Source: Kubernetes' own scalability jobs run both with 100 and 100, from 100 to 5000 Nodes
    /// (`CONTROLLER_MANAGER_TEST_ARGS` and `SCHEDULER_TEST_ARGS` in kubernetes/test-infra).
    #[must_use]
    pub fn client_rate(self) -> Option<(u32, u32)> {
        (self.nodes >= 100).then_some((100, 100))
    }

    /// How many CoreDNS Pods: one for sixteen Nodes, at least two.
    ///
    /// Source: the parameters of `cluster/addons/dns-horizontal-autoscaler` in Kubernetes 1.37 (`nodesPerReplica: 16`,
    /// `preventSinglePointFailure`). Its other measure, one for 256 cores, needs machines to look at.
    #[must_use]
    pub fn dns_replicas(self) -> u32 {
        self.nodes.div_ceil(16).max(2)
    }

    /// The memory that a CoreDNS Pod asks for, and its limit, in MiB: kubeadm's 70 and 170 until CoreDNS needs more, and
    /// from then on a limit as far above as kubeadm's.
    ///
    /// Source: "Scaling CoreDNS in Kubernetes Clusters" in coredns/deployment: (Pods + Services) / 1000 + 54 MB. Pods are
    /// the 110 a Node and 150,000 in all that Kubernetes' page on large clusters allows; Services the 10,000 of
    /// SIG Scalability's thresholds, and not more than Pods.
    #[must_use]
    pub fn dns_memory(self) -> (u32, u32) {
        let pods = self.nodes.saturating_mul(110).min(150_000);
        let needed = (pods + pods.min(10_000)).div_ceil(1000) + 54;
        let request = needed.max(70);
        (request, request * 170 / 70)
    }

    /// What kube-proxy asks for: processor and memory. kubeadm asks for nothing, so that on a full machine it starves.
    ///
    /// Source: kube-up, `KUBE_PROXY_CPU_REQUEST` and `KUBE_PROXY_MEMORY_REQUEST` in `cluster/gce/gci/configure-helper.sh`.
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
    /// Settings for the expected number of Nodes, if the user gives one.
    #[must_use]
    pub fn sizing(&self) -> Option<Sizing> {
        let nodes = self.spec.scale.as_ref()?.nodes;
        Some(Sizing { nodes: u32::try_from(nodes).unwrap_or_default() })
    }

    /// kube-apiserver's flags beside those that it always has: the size's, and the user's, which win.
    #[must_use]
    pub fn api_server_arguments(&self) -> Vec<Argument> {
        self.beside(Sizing::in_flight_arguments, &self.spec.control_plane.api_server.extra_args)
    }

    /// The same for kube-controller-manager.
    #[must_use]
    pub fn controller_manager_arguments(&self) -> Vec<Argument> {
        self.beside(Sizing::rate_arguments, &self.spec.control_plane.controller_manager.extra_args)
    }

    /// The same for kube-scheduler. A scheduler with a configuration file ignores these flags.
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
    fn grows_where_the_sources_say_and_not_before() {
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
