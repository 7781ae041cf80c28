//! A plan as a drawing: the client above, the servers below, and every call, event and connection between.

mod canvas;

use std::collections::BTreeMap;

use layout::{
    adt::dag::NodeHandle,
    core::{
        base::Orientation,
        color::Color,
        geometry::Point,
        style::{LineStyleKind, StyleAttr},
    },
    std_shapes::shapes::{Arrow, Element, LineEndKind, ShapeKind},
    topo::layout::VisualGraph,
};
use mesh::{Plan, plan::Service};

use crate::picture::replicas;
use canvas::{Canvas, FONT_SIZE, size_of};

const CLIENT: &str = "client";
/// With more lines than these their crossings are not thought over: that takes minutes, and the drawing would be no clearer for it.
const MOST_UNTANGLED: usize = 60;
/// Between a box's words and its border, both sides together.
const PADDING: f64 = 16.0;

/// The mesh as an SVG document; the same plan gives the same text.
pub fn svg(plan: &Plan) -> String {
    let mut drawing = Drawing::new();
    drawing.boxes(plan);
    drawing.requests(plan);
    drawing.events(plan);
    drawing.finish()
}

/// A colour by its 0xRRGGBB.
fn colour(rgb: u32) -> Color {
    Color::new((rgb << 8) | 0xff)
}

/// What a box stands for.
#[derive(Clone, Copy)]
enum Kind {
    Outside,
    Service,
    Server,
}

impl Kind {
    fn look(self) -> StyleAttr {
        let (line, fill) = match self {
            Self::Outside => (0x55_5555, 0xff_ffff),
            Self::Service => (0x1f_5f99, 0xe3_f0fb),
            Self::Server => (0x8a_6d1d, 0xfb_f3da),
        };
        StyleAttr::new(colour(line), 2, Some(colour(fill)), 6, FONT_SIZE)
    }
}

/// What a line stands for.
#[derive(Clone, Copy)]
enum Line {
    /// One asks the other and waits.
    Call,
    /// Events, towards the event bus.
    Emits,
    /// Events, from the event bus. Drawn from the consumer, so that the bus stays below all services.
    Consumes,
    /// A service and its database.
    Stores,
}

impl Line {
    fn arrow(self, text: &str) -> Arrow {
        let (start, end, style, rgb) = match self {
            Self::Call => (LineEndKind::None, LineEndKind::Arrow, LineStyleKind::Normal, 0x1f_5f99),
            Self::Emits => (LineEndKind::None, LineEndKind::Arrow, LineStyleKind::Dashed, 0x2e_7d32),
            Self::Consumes => (LineEndKind::Arrow, LineEndKind::None, LineStyleKind::Dashed, 0x2e_7d32),
            Self::Stores => (LineEndKind::None, LineEndKind::None, LineStyleKind::Normal, 0x8a_6d1d),
        };
        let look = StyleAttr::new(colour(rgb), 2, None, 0, FONT_SIZE);
        Arrow::new(start, end, style, text, &look, &None, &None)
    }
}

struct Drawing {
    graph: VisualGraph,
    handles: BTreeMap<String, NodeHandle>,
    lines: usize,
}

impl Drawing {
    fn new() -> Self {
        Self { graph: VisualGraph::new(Orientation::TopToBottom), handles: BTreeMap::new(), lines: 0 }
    }

    fn boxes(&mut self, plan: &Plan) {
        self.put(CLIENT, CLIENT, Kind::Outside);
        // The gateway starts last and stands first.
        for service in plan.services.iter().rev() {
            self.put(&service.name, &label(service), Kind::Service);
        }
        for database in &plan.databases {
            let text = format!("{}\nPostgreSQL, {}", database.name, database.memory_bytes);
            self.put(&database.name, &text, Kind::Server);
        }
        if let Some(events) = &plan.events {
            self.put(&events.server, &format!("{}\nJetStream, {}", events.server, events.memory_bytes), Kind::Server);
        }
    }

    fn requests(&mut self, plan: &Plan) {
        self.join(CLIENT, &plan.gateway.service, &Line::Call.arrow("TLS"));
        for route in &plan.gateway.routes {
            self.join(&plan.gateway.service, &route.service, &Line::Call.arrow(&route.prefix));
        }
        for service in &plan.services {
            // A route is a call of the gateway already.
            let routed = |callee: &str| {
                service.name == plan.gateway.service
                    && plan.service(callee).is_some_and(|callee| callee.route.is_some())
            };
            for callee in service.calls.iter().filter(|callee| !routed(callee)) {
                self.join(&service.name, callee, &Line::Call.arrow("calls"));
            }
            if let Some(database) = &service.database {
                self.join(&service.name, database, &Line::Stores.arrow(""));
            }
        }
    }

    fn events(&mut self, plan: &Plan) {
        let Some(events) = &plan.events else { return };
        for service in &plan.services {
            if !service.emits.is_empty() {
                self.join(&service.name, &events.server, &Line::Emits.arrow(&lines(&service.emits)));
            }
            if !service.consumes.is_empty() {
                self.join(&service.name, &events.server, &Line::Consumes.arrow(&lines(&service.consumes)));
            }
        }
    }

    fn put(&mut self, name: &str, text: &str, kind: Kind) {
        let words = size_of(text);
        let size = Point::new(words.x + PADDING, words.y + PADDING);
        let element = Element::create(ShapeKind::new_box(text), kind.look(), Orientation::TopToBottom, size);
        let handle = self.graph.add_node(element);
        self.handles.insert(name.to_owned(), handle);
    }

    fn join(&mut self, from: &str, to: &str, arrow: &Arrow) {
        if let (Some(from), Some(to)) = (self.handles.get(from), self.handles.get(to)) {
            self.graph.add_edge(arrow.clone(), *from, *to);
            self.lines += 1;
        }
    }

    fn finish(mut self) -> String {
        let mut canvas = Canvas::default();
        self.graph.do_it(false, self.lines > MOST_UNTANGLED, false, &mut canvas);
        canvas.finish()
    }
}

fn label(service: &Service) -> String {
    format!("{}\n{} × {}", service.name, replicas(service.replicas), service.memory_bytes)
}

fn lines<T: ToString>(parts: &[T]) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use mesh::Placement;

    const SHOP: &str = include_str!("../../../../mesh.toml");

    #[test]
    fn everything_is_in_the_drawing_and_it_is_always_the_same() {
        let plan = mesh::resolve("mesh.toml", SHOP, &Placement::Nodes).unwrap();
        let svg = super::svg(&plan);
        assert_eq!(svg, super::svg(&plan));
        let names = plan.services.iter().map(|service| &service.name);
        for name in names.chain(plan.databases.iter().map(|database| &database.name)) {
            assert!(svg.contains(&format!(">{name}<")), "{name}");
        }
        for text in ["client", "/items", "/documents", "calls", "items.&gt;", "documents.stock.*"] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn a_large_mesh_is_drawn_as_well() {
        use std::fmt::Write as _;

        let names: Vec<String> = (0..60).map(|index| format!("s{index}")).collect();
        let mut text = format!(
            "[mesh]\nname = \"large\"\n[sizes]\nlarge = {{ cpus = 64, memory = \"1TiB\" }}\n[nodes.all]\nsize = \"large\"\n\
             runs = {:?}\n[services.gateway]\n[auth]\nissuer = \"https://issuer.example\"\n",
            names.iter().map(String::as_str).chain(["gateway", "nats"]).collect::<Vec<_>>()
        );
        text.push_str("[events]\n");
        for (index, name) in names.iter().enumerate() {
            let (port, callee) = (9000 + index, index / 2);
            write!(
                text,
                "[services.{name}]\nport = {port}\nroute = {{ prefix = \"/{name}\" }}\nemits = [\"{name}.>\"]\n"
            )
            .unwrap();
            if index > 0 {
                writeln!(text, "calls = [\"s{callee}\"]").unwrap();
            }
        }
        let plan = mesh::resolve("mesh.toml", &text, &Placement::Nodes)
            .unwrap_or_else(|found| panic!("{:?}", miette::Report::new(found)));
        let svg = super::svg(&plan);
        assert!(names.iter().all(|name| svg.contains(&format!(">{name}<"))));
    }
}
