// swift-tools-version: 6.2
import PackageDescription

/// Every target: warnings are errors. The language mode (Swift 6) follows from the tools version.
let strict: [SwiftSetting] = [.treatAllWarnings(as: .error)]
/// Targets that touch C: every unsafe use is written out as such.
let strictUnsafe: [SwiftSetting] = strict + [.strictMemorySafety()]

/// `make fuzz` builds these three: each reads bytes from outside under libFuzzer, which has the program's `main`.
let fuzzTargets: [Target] =
    Context.environment["MAESTRO_FUZZ"] == nil
    ? []
    : [
        .executableTarget(
            name: "FuzzWire",
            dependencies: ["JobModel", "NATSClient", "WireJSON"],
            path: "Tests/Fuzz/Wire",
            swiftSettings: strictUnsafe
        ),
        .executableTarget(
            name: "FuzzSettings",
            dependencies: ["JobModel", "ServiceSupport"],
            path: "Tests/Fuzz/Settings",
            swiftSettings: strictUnsafe
        ),
        .executableTarget(
            name: "FuzzSysfs",
            dependencies: ["GPUTelemetry"],
            path: "Tests/Fuzz/Sysfs",
            swiftSettings: strictUnsafe
        ),
    ]

let package = Package(
    name: "Maestro",
    products: [
        .executable(name: "gpu-worker", targets: ["GPUWorker"]),
        .executable(name: "maestro", targets: ["Maestro"]),
        .executable(name: "maestroctl", targets: ["MaestroCtl"]),
        // For trying, testing and measuring: not part of the packages.
        .executable(name: "fake-rig", targets: ["FakeRigTool"]),
        .executable(name: "maestro-bench", targets: ["BenchTool"]),
        .executable(name: "cluster-sim", targets: ["ClusterSim"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        // Values and rules that everything shares
        .target(name: "WireJSON", swiftSettings: strict),
        .target(name: "JobModel", dependencies: ["WireJSON"], swiftSettings: strict),
        // The thread on which descriptors, deadlines and tasks are served
        .target(name: "CEventLoop"),
        .target(name: "EventLoop", dependencies: ["CEventLoop"], swiftSettings: strictUnsafe),

        // Child processes, their files and directories
        .target(name: "CProcess"),
        .target(name: "TaskRunner", dependencies: ["CProcess", "EventLoop", "WireJSON"], swiftSettings: strictUnsafe),

        // Who has submitted a task
        .target(name: "CEd25519", linkerSettings: [.linkedLibrary("crypto")]),
        .target(name: "TaskSigning", dependencies: ["CEd25519"], swiftSettings: strictUnsafe),

        // Decisions: events in, actions out
        .target(
            name: "SchedulerCore",
            dependencies: [
                "JobModel", "WireJSON", .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "HeapModule", package: "swift-collections"),
            ],
            swiftSettings: strict
        ),
        .target(name: "WorkerCore", dependencies: ["JobModel"], swiftSettings: strict),

        // The bus
        .systemLibrary(name: "CNATS", pkgConfig: "libnats", providers: [.apt(["libnats-dev"])]),
        .target(
            name: "NATSClient",
            dependencies: ["CEventLoop", "CNATS", "EventLoop", "WireJSON"],
            swiftSettings: strictUnsafe
        ),

        // The protocol over JetStream
        .target(
            name: "JobTransport",
            dependencies: [
                "EventLoop", "JobModel", "NATSClient", "ServiceSupport", "WireJSON",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),

        // What every executable begins with: configuration, logging, signals
        .target(name: "CService"),
        .target(
            name: "ServiceSupport",
            dependencies: ["CService", "JobModel", .product(name: "Logging", package: "swift-log")],
            swiftSettings: strictUnsafe
        ),

        // Graphics cards
        .target(name: "CPCI", linkerSettings: [.linkedLibrary("pci")]),
        .systemLibrary(name: "CLibDRM", pkgConfig: "libdrm_amdgpu", providers: [.apt(["libdrm-dev"])]),
        .target(name: "CDRM", dependencies: ["CLibDRM"], linkerSettings: [.linkedLibrary("drm")]),
        .target(name: "CNVML"),
        .target(
            name: "GPUTelemetry",
            dependencies: ["CPCI", "CDRM", "CNVML", "JobModel", "WireJSON"],
            swiftSettings: strictUnsafe
        ),

        .target(
            name: "ProgramEntry",
            dependencies: ["ServiceSupport", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: strict
        ),

        // Executables
        .executableTarget(
            name: "Maestro",
            dependencies: [
                "JobModel", "JobTransport", "NATSClient", "ProgramEntry", "SchedulerCore", "ServiceSupport", "WireJSON",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict
        ),
        .executableTarget(
            name: "MaestroCtl",
            dependencies: [
                "CService", "EventLoop", "GPUTelemetry", "JobModel", "JobTransport", "NATSClient", "ProgramEntry",
                "ServiceSupport", "TaskRunner", "TaskSigning", "WireJSON",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strictUnsafe
        ),

        .executableTarget(
            name: "GPUWorker",
            dependencies: [
                "CProcess", "EventLoop", "GPUTelemetry", "JobModel", "JobTransport", "NATSClient", "ProgramEntry",
                "ServiceSupport", "TaskRunner", "TaskSigning", "WireJSON", "WorkerCore",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strictUnsafe
        ),

        // The probe and the made-up machine of GPUTelemetry's tests
        .target(name: "CHeap", path: "Tests/CHeap"),
        .executableTarget(
            name: "GPUProbe",
            dependencies: ["CHeap", "GPUTelemetry", "JobModel", "WireJSON"],
            swiftSettings: strictUnsafe
        ),
        .target(
            name: "FakeRig",
            path: "Tests/FakeRig",
            exclude: ["preload.c", "nvml.c"],
            swiftSettings: strict
        ),

        .executableTarget(name: "FakeRigTool", dependencies: ["FakeRig"], swiftSettings: strict),

        // Parts of the benchmarks: the core alone, simulated workers
        .executableTarget(
            name: "BenchTool",
            dependencies: [
                "JobModel", "JobTransport", "NATSClient", "ProgramEntry", "SchedulerCore", "WireJSON",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            path: "Benchmarks/Tool",
            swiftSettings: strict
        ),

        // The simulated cluster
        .target(
            name: "ClusterSimulation",
            dependencies: [
                "JobModel", "SchedulerCore", "WireJSON", "WorkerCore",
                .product(name: "HeapModule", package: "swift-collections"),
            ],
            path: "Tests/ClusterSimulation",
            swiftSettings: strict
        ),

        .executableTarget(
            name: "ClusterSim",
            dependencies: [
                "ClusterSimulation", .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Tests/ClusterSim",
            swiftSettings: strict
        ),

        // Tests
        .testTarget(
            name: "GPUTelemetryTests",
            dependencies: ["GPUTelemetry", "FakeRig", "GPUProbe", "GPUWorker", "JobModel", "WireJSON"],
            swiftSettings: strict
        ),
        .testTarget(name: "TaskSigningTests", dependencies: ["TaskSigning"], swiftSettings: strictUnsafe),
        .testTarget(name: "ClusterSimulationTests", dependencies: ["ClusterSimulation"], swiftSettings: strict),
        .testTarget(name: "EventLoopTests", dependencies: ["CEventLoop", "EventLoop"], swiftSettings: strict),
        .testTarget(name: "WireJSONTests", dependencies: ["WireJSON"], swiftSettings: strict),
        .testTarget(name: "WorkerCoreTests", dependencies: ["WorkerCore", "JobModel"], swiftSettings: strict),
        .testTarget(
            name: "GPUWorkerTests",
            dependencies: ["GPUWorker", "GPUTelemetry", "TaskRunner"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "TaskRunnerTests",
            dependencies: ["EventLoop", "TaskRunner", "WireJSON"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "JobModelTests",
            dependencies: ["JobModel", "WireJSON"],
            exclude: ["Samples"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "ServiceSupportTests",
            dependencies: ["ServiceSupport", "JobModel", .product(name: "Logging", package: "swift-log")],
            swiftSettings: strict
        ),
        .testTarget(
            name: "JobTransportTests",
            dependencies: ["JobModel", "JobTransport"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "MaestroCtlTests",
            dependencies: [
                "MaestroCtl", "JobModel", "JobTransport", "NATSClient", "ServiceSupport", "WireJSON",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict
        ),
        .testTarget(
            name: "NATSClientTests",
            dependencies: ["ClusterSimulation", "EventLoop", "JobModel", "NATSClient", "WireJSON"],
            swiftSettings: strict
        ),
        .testTarget(
            name: "SchedulerCoreTests",
            dependencies: ["SchedulerCore", "JobModel", "WireJSON"],
            swiftSettings: strict
        ),
    ] + fuzzTargets
)
