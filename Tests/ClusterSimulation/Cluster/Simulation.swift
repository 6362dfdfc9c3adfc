import JobModel

/// How often each thing was seen to happen.
package struct Coverage: Sendable {
    package private(set) var counts: [String: Int] = [:]
    private var faults: [Fault: Int] = [:]

    package init() {}

    mutating func count(_ what: String) { counts[what, default: 0] += 1 }
    mutating func count(_ fault: Fault) { faults[fault, default: 0] += 1 }

    package mutating func add(_ other: Coverage) {
        counts.merge(other.counts, uniquingKeysWith: +)
        faults.merge(other.faults, uniquingKeysWith: +)
    }

    /// Every legal step of a record's state, the first one from "-".
    package static let transitions: [String] =
        JobState.allCases.filter(JobState.initial.contains).map { "- > \($0.rawValue)" }
        + JobState.allCases.flatMap { state in
            JobState.allCases.filter(state.successors.contains).map { "\(state.rawValue) > \($0.rawValue)" }
        }

    /// Legal steps and named faults that have never happened.
    package var missing: [String] {
        Self.transitions.filter { counts[$0] == nil }
            + Fault.allCases.filter { faults[$0] == nil }.map { "fault \($0.rawValue)" }
            + Moment.allCases.map { "moment \($0.name)" }.filter { counts[$0] == nil }
    }

    /// A table for a person.
    package var lines: [String] {
        var rows = Self.transitions.map { ($0, counts[$0] ?? 0) }
        rows += Fault.allCases.map { ("fault \($0.rawValue)", faults[$0] ?? 0) }
        let others = counts.filter { !Self.transitions.contains($0.key) }
        rows += others.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
        return rows.map { name, count in
            let digits = String(count)
            return String(repeating: " ", count: max(0, 10 - digits.count)) + digits + "  " + name
        }
    }
}

/// What one run came to.
package struct Verdict: Sendable {
    package let scenario: Scenario
    /// What was broken; empty when all promises held.
    package let violations: [String]
    package let coverage: Coverage
    /// Steps of the agenda.
    package let steps: UInt64
    /// Virtual time.
    package let duration: Duration
    /// What happened, line by line; empty unless somebody is going to read it.
    package let history: [String]
}

/// Runs of a simulated cluster.
package enum Simulation {
    /// - Parameter tellsAll: whether the history holds every job, not only those that a violation names.
    package static func run(
        _ scenario: Scenario,
        mutant: Mutant? = nil,
        isTelling: Bool = false,
        tellsAll: Bool = false
    ) -> Verdict {
        let cluster = Cluster(scenario, mutant: mutant, isTelling: isTelling)
        cluster.run()
        let violations = cluster.ledger.violations
        let isNamed = { (job: JobID?) in
            guard let job else { return true }
            return tellsAll || violations.contains { $0.contains(job.text) }
        }
        return Verdict(
            scenario: scenario,
            violations: violations,
            coverage: cluster.coverage,
            steps: cluster.agenda.count,
            duration: cluster.now - Agenda.beginning,
            history: cluster.history.filter { isNamed($0.job) }.map { line in
                "\((line.time - Agenda.beginning).text) \(line.text)"
            }
        )
    }

    /// Leaves out faults and jobs as long as something is still broken.
    /// - Parameter budget: how many runs that may take.
    package static func shrink(_ failing: Scenario, mutant: Mutant? = nil, budget: Int = 400) -> Scenario {
        var smallest = failing
        var left = budget
        func fails(_ scenario: Scenario) -> Bool {
            left -= 1
            return !run(scenario, mutant: mutant).violations.isEmpty
        }
        func reduce<Item>(_ items: WritableKeyPath<Scenario, [Item]>) {
            var size = max(1, smallest[keyPath: items].count / 2)
            while left > 0 {
                var start = 0
                var hasShrunk = false
                while start < smallest[keyPath: items].count, left > 0 {
                    var candidate = smallest
                    let end = min(start + size, candidate[keyPath: items].count)
                    candidate[keyPath: items].removeSubrange(start..<end)
                    if fails(candidate) {
                        smallest = candidate
                        hasShrunk = true
                    } else {
                        start = end
                    }
                }
                if size == 1, !hasShrunk { break }
                size = max(1, size / 2)
            }
        }
        reduce(\.faults)
        reduce(\.jobs)
        reduce(\.faults)
        return smallest
    }
}
