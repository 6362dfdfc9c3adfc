import Logging
import ServiceSupport
import TaskRunner
import WireJSON

/// What holds the jobs of this worker, as the configuration wants it and the system has it.
struct JobConfinement: Sendable {
    /// What the runner holds every task by.
    let confinement: TaskRunner.Confinement
    /// What a job may use at most, and what it gets when it asks for nothing.
    let ceiling: ResourceLimits
    /// What a person should know of it.
    let remarks: [String]

    private typealias Keys = WorkerSettings.Keys

    /// Takes the worker's place among the cgroups, and ends what earlier lives have left there. To be called once, with
    /// the card's lock held. Blocks.
    init(_ settings: WorkerSettings) throws(FatalError) {
        let user = try Self.user(settings.settings)
        let cgroups = try Self.cgroups(settings)
        let controllers = cgroups?.controllers ?? []
        let memory = settings.settings[Keys.memoryMaximum].map { UInt64($0 * 1_048_576) }
        let processes = settings.settings[Keys.processMaximum].map { Int($0) }
        if processes != nil, !controllers.contains(.pids) {
            throw FatalError(
                .configuration,
                "JOB_PIDS_MAX: the processes of a job cannot be counted here: \(Self.lack(of: .pids, cgroups)); leave it out"
            )
        }
        var remarks: [String] = []
        if cgroups == nil {
            remarks.append(
                "jobs have no cgroups of their own (no unit with Delegate=, no JOB_CGROUP): their processes are told by "
                    + "session, descent, environment and pipes"
            )
        } else if controllers.count < CgroupTree.Controller.allCases.count {
            remarks.append(
                "jobs have cgroups of their own, without limits of memory or processes as a whole: "
                    + Self.lack(of: controllers.contains(.memory) ? .pids : .memory, cgroups)
            )
        }
        if user == nil, HostInfo.isRoot {
            remarks.append("jobs run as root, as this worker does; name another user in JOB_USER")
        }
        confinement = TaskRunner.Confinement(
            cgroups: cgroups,
            user: user,
            deniesNamespaces: !settings.settings[Keys.namespaces]
        )
        ceiling = ResourceLimits(memoryBytes: memory, processes: processes)
        self.remarks = remarks
    }

    /// For `gpu.worker.up` and the registration.
    var facts: JSONObject {
        var facts: JSONObject = ["job_cgroups": .bool(confinement.cgroups != nil)]
        let held = confinement.cgroups?.controllers ?? []
        let controllers = CgroupTree.Controller.allCases.filter(held.contains)
        facts["job_limits"] = .array(controllers.map { .string($0.rawValue) })
        if let user = confinement.user { facts["job_user"] = .string(user.name) }
        return facts
    }

    /// What a job that asks for these limits gets; the error is the reason why it may not have them.
    func limits(asked: ResourceLimits) -> Result<ResourceLimits, Objection> {
        if let memory = asked.memoryBytes, let most = ceiling.memoryBytes, memory > most {
            return .failure(Objection("memory_bytes is \(memory); this worker allows \(most) (JOB_MEMORY_MAX_MB)"))
        }
        if let processes = asked.processes {
            if let most = ceiling.processes, processes > most {
                return .failure(Objection("max_processes is \(processes); this worker allows \(most) (JOB_PIDS_MAX)"))
            }
            guard confinement.cgroups?.controllers.contains(.pids) ?? false else {
                return .failure(
                    Objection(
                        "max_processes cannot be held by this worker: \(Self.lack(of: .pids, confinement.cgroups))"
                    )
                )
            }
        }
        return .success(
            ResourceLimits(
                memoryBytes: asked.memoryBytes ?? ceiling.memoryBytes,
                processes: asked.processes ?? ceiling.processes
            )
        )
    }

    struct Objection: Error, Equatable {
        let reason: String

        init(_ reason: String) { self.reason = reason }
    }

    private static func lack(of controller: CgroupTree.Controller, _ cgroups: CgroupTree?) -> String {
        guard let cgroups else { return "its jobs have no cgroups of their own" }
        return "\(cgroups.path) has no \(controller.rawValue) controller (cgroup.controllers)"
    }

    private static func user(_ settings: Settings) throws(FatalError) -> JobUser? {
        guard let name = settings[Keys.jobUser] else { return nil }
        let user: JobUser
        do throws(TaskRunnerError) {
            user = try JobUser(named: name)
        } catch {
            throw FatalError(.configuration, "JOB_USER=\(name): \(error)")
        }
        let missing = JobUser.missingCapabilities()
        guard missing.isEmpty else {
            throw FatalError(
                .configuration,
                "JOB_USER=\(name): this worker may not run jobs as another user; it lacks \(missing.joined(separator: " ")) "
                    + "(the drop-in /usr/share/maestro/job-user.conf gives them)"
            )
        }
        return user
    }

    private static func cgroups(_ settings: WorkerSettings) throws(FatalError) -> CgroupTree? {
        let place: CgroupPlace?
        switch settings.settings[Keys.jobCgroup] {
        case "off": place = nil
        case "auto": place = CgroupPlace.delegated()
        case let path: place = CgroupPlace(path: "\(path)/gpu\(settings.number)")
        }
        guard let place else { return nil }
        do throws(TaskRunnerError) {
            return try CgroupTree(at: place, within: .seconds(20))
        } catch {
            throw FatalError(error.code == .unkillable ? .internalDefect : .configuration, "JOB_CGROUP: \(error)")
        }
    }
}
